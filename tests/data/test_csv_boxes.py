"""CSV lists of boxes, as Google's AutoML takes them: what is read of them, and what may be wrong."""

import pytest
from box_files import BOXES, check, check_list, shares, write_images

from kvision.data.sources import open_source
from kvision.errors import UserError


def test_csv(tmp_path):
    """The rows are those of Google's page: with two vertices, with four, and without a box."""
    write_images(tmp_path)
    rows = []
    for name, of_set in zip("abcd", ("TRAINING", "UNASSIGNED", "Validation", "TEST"), strict=True):
        for number, (box, label, _) in enumerate(BOXES["abcd".index(name)]):
            left, top, right, bottom = shares(box)
            corners = [
                f"{left},{top},,,{right},{bottom},,",
                f"{left},{top},{right},{top},{right},{bottom},{left},{bottom}",
            ][number]
            rows.append(f"{of_set},{name}.jpg,{label},{corners}")
        if name == "b":
            rows.append(f"{of_set},b.jpg,,,,,,,,,")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    data = f"csv:{tmp_path}/list.csv"
    check(data, crowds=False)
    check_list(data, "train", "ab", crowds=False)
    check_list(data, "val", "c")
    check_list(data, "test", "d")
    short = [",".join(field for field in row.split(",") if field) for row in rows if "b.jpg" not in row]
    header = "set,path,label,x_min,y_min,,,x_max,y_max,,"
    (tmp_path / "list.csv").write_text(
        "\n".join([header, *(short[i].replace("TEST", "UNASSIGNED") for i in (2, 3))])
    )
    check_list(data, "val", "c", classes=("cat", "cow"))
    order = (2, 5, 3, 6, 4, 0, 1)  # of the columns
    header = "set,path,label,x_min,y_min,x_max,y_max"
    named = [header, *(short[i].replace("TEST", "UNASSIGNED") for i in (2, 3))]
    named = [[row.split(",")[place] for place in order] for row in named]
    (tmp_path / "list.csv").write_text("\n\n" + "\n".join(map(",".join, named)))
    check_list(data, "val", "c", classes=("cat", "cow"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("TRAIN,a.jpg,dog,0.1,0.1", "row 1: 'set,path,label,.*' was expected, 11 fields, .* got 5"),
        ("BOTH,a.jpg,dog,0.1,0.1,,,0.3,0.3,,", "TRAIN, VALIDATION, TEST or UNASSIGNED was .* 'BOTH'"),
        ("TRAIN,gs://x/a.jpg,dog,0.1,0.1,,,0.3,0.3,,", "row 1: a path of a file here was expected"),
        ("TRAIN,a.jpg,dog,0.1,x,,,0.3,0.3,,", "row 1: a label and the coordinates of a box were expected"),
        ("TRAIN,a.jpg,,0.1,0.1,,,0.3,0.3,,", "row 1: a label and the coordinates"),
        ("TRAIN,x.jpg,dog,0.1,0.1,,,0.3,0.3,,", "1 of the 1 images that '.*list.csv' lists are not there"),
        ("TRAIN,../a.jpg,dog,0.1,0.1,,,0.3,0.3,,", "row 1: a path below the file's folder was expected"),
        ("TRAIN,a.jpg,dog,10,10,,,30,30,,", "None of 1 box can be used: 1 outside of the image"),
        ("set,path,label,x_min,y_min,width,height", "row 1: names of the columns 'set', .* any order, were"),
        ("path,label,set,x_min,y_min,x_max,y_max\na.jpg,dog", "row 2: 7 fields were expected, as the first"),
        ("TRAIN,.,dog,0.1,0.1,,,0.3,0.3,,", "row 1: a path of a file was expected; got '.'"),
        ("TRAIN,a.jpg,,,,,,,,,", "lists no boxes for the split 'train'"),
        ("TRAIN,a.jpg,,,,,,,,,\nTEST,a.jpg,,,,,,,,,", "row 2: 'a.jpg' is in the sets 'train' and 'test'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_csv(tmp_path, row, message):
    write_images(tmp_path, "a")
    (tmp_path / "list.csv").write_text(row)
    with pytest.raises(UserError, match=message):
        open_source(f"csv:{tmp_path}/list.csv", "train", target="boxes")
