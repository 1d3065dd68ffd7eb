"""kvision-export: writes quantized TFLite files of a network and measures them.

    kvision-export --model=runs/demo --quantize=float32,float16,dynamic,int8

Each file takes one image of fixed size: the float ones float32 pixels in [0, 255], the int8 one uint8
pixels; and beside it proposals, where the network does. Each gives float32 probabilities, or what --answer
asks for, or a detector's boxes, classes, scores and their number. It says in its metadata what it is and what
its classes are. Each is compared with the Keras model on held-out images; one that is outside its mode's
tolerance ends the command with exit code 1, and so does a Keras model that the labels speak against; a full
disk ends it with 75. Beside the files lie labels.txt, report.json and report.html.

    kvision-export --check FILE.tflite ...

says what is in files that are there, and ends with 1 where one has a fault.
"""

from absl import flags

from kvision import cli, model_flags
from kvision.choices import DATASETS
from kvision.errors import UserError
from kvision_export.choices import ANSWERS, BACKENDS, IO_DTYPES, TARGETS
from kvision_export.modes import MODES

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    model_flags.define_model(required=False)
    model_flags.define_dataset()
    flags.DEFINE_enum(
        "target",
        "cpu",
        [*TARGETS],
        "Processor that runs the files; chooses the defaults of --quantize and --io_dtype.",
    )
    flags.DEFINE_list(
        "quantize", None, f"Modes to write: any of {', '.join(MODES)}; by --target, float32,int8 for cpu."
    )
    flags.DEFINE_enum(
        "io_dtype",
        None,
        IO_DTYPES,
        "Dtypes of the input and the output of int8 files: uint8 (pixels in, float32 probabilities out), "
        "float32 (both) or int8 (both). By --target, uint8 for cpu.",
    )
    flags.DEFINE_enum(
        "answer",
        "probabilities",
        ANSWERS,
        "Output of the files: probabilities, logits, or, of a network that answers for pixels, mask: the "
        "most probable class of each pixel, as uint8.",
    )
    flags.DEFINE_bool(
        "one_shot",
        False,
        "Whether a captioner's file finds all words by itself, with the signature caption(image); else it "
        "has the signatures encode(image) and step(token, state).",
    )
    flags.DEFINE_bool(
        "streaming",
        False,
        "Whether the file of a classifier of clips with a recurrent head takes one frame after the other, "
        "with the signature step(frame, state).",
    )
    flags.DEFINE_enum("backend", "litert", BACKENDS, "Quantizer: litert-quantizer or TensorFlow's.")
    flags.DEFINE_string(
        "calibration",
        None,
        f"Dataset: {DATASETS}; a run folder's own by default. Its training images give "
        "the int8 ranges, its held-out ones the report. A folder of images without class folders, or with "
        "those of other classes, will do: the score is left out then.",
    )
    flags.DEFINE_integer(
        "calibration_images",
        64,
        "Number of images that give the int8 ranges; as many others choose the steps.",
        2,
    )
    flags.DEFINE_integer(
        "images", 500, "Largest number of held-out images on which the files are compared.", 1
    )
    flags.DEFINE_bool("compare", True, "Whether TFLiteConverter's own int8 file is measured too.")
    flags.DEFINE_string("description", "", "Description for the files' metadata, in a sentence or two.")
    flags.DEFINE_string("license", "", "License of the weights, for the files' metadata.")
    flags.DEFINE_float(
        "max_difference",
        1e-4,
        "Largest difference of a float32 file's probabilities from the Keras model's.",
        0,
    )
    flags.DEFINE_float(
        "min_agreement_float16",
        0.995,
        "Smallest share of images (for segmentation, of pixels) on which a float16 file's first class is the "
        "Keras model's; with several labels an image, share of those given by one of both that both give; of "
        "the Keras model's detections, share that the file has.",
        0,
        1,
    )
    flags.DEFINE_float(
        "min_agreement",
        0.97,
        "The same for dynamic, int8, int16x8 and int4 files on images without labels; with labels, "
        "--max_drop decides.",
        0,
        1,
    )
    flags.DEFINE_float(
        "max_drop",
        0.5,
        "Largest drop of the score (top-1, of several labels mAP, for segmentation the mean IoU, or for "
        "detection AP), in percentage points, of a dynamic, int8, int16x8 or int4 file.",
        0,
        100,
    )
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write; RUN/export or exports/NAME by default. All files of an earlier export in it are "
        "replaced or removed.",
    )
    flags.DEFINE_bool(
        "check", False, "Whether to say only what is in the .tflite files that are named after the options."
    )


def main(positional):
    """Exports or checks by the flags; returns the exit code."""
    with cli.user_errors():
        if FLAGS.check:
            if not positional:
                raise UserError("Which files? kvision-export --check FILE.tflite ...")
            cli.import_keras()
            from kvision_export import console

            return console.check(positional)
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        if FLAGS.model is None:
            raise UserError("What is to be exported? Give --model, or --check and files.")
        modes = [*dict.fromkeys(TARGETS[FLAGS.target][0] if FLAGS.quantize is None else FLAGS.quantize)]
        if not modes:
            raise UserError(f"`--quantize` names no mode. Valid modes: {', '.join(MODES)}.")
        for mode in modes:
            if mode not in MODES:
                raise UserError(f"`--quantize`: unknown mode {mode!r}. Valid modes: {', '.join(MODES)}.")
        if FLAGS.io_dtype and not any(MODES[mode].integers for mode in modes):
            raise UserError(
                f"`--io_dtype` gives the dtypes of int8 files, and the modes are {', '.join(modes)}: add "
                "int8 to `--quantize`, or leave `--io_dtype` out."
            )
        if FLAGS.one_shot and FLAGS.streaming:
            raise UserError("`--one_shot` is for captions and `--streaming` for clips: give one.")
        cli.import_keras()
        from kvision_export import console, from_flags

        report, output = from_flags.export(modes)
    console.print_table(report, output)
    return 1 if report["doubts"] or any(file["refusal"] for file in report["files"] if file["file"]) else 0


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
