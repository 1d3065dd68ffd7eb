"""The operators that have no meaning in 8 bits: those that choose, and the arithmetic around them."""

from ai_edge_litert import schema_py_generated as schema

from kvision_export import flatbuffer

FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)


def float_operators(model: schema.ModelT) -> list[str]:
    """Names of the operators of a float file that stay float where the others become integers.

    Operators on computed integers or booleans choose: they sort, compare or index, as the decoding of a
    detector does; and so do those on inputs beside the image, as on proposals. What is computed for them
    alone, behind the last layer with weights, keeps its precision, and so does what follows from them, up to
    the next layer: a box in steps of 1/256 of an image is lost.
    """
    graph = model.subgraphs[0]
    computed = {int(i) for operator in graph.operators for i in operator.outputs}
    others = [operator for operator in graph.operators if not _has_weights(model, operator)]
    chosen = {id(operator) for operator in others if _chooses(graph, operator, computed)}
    beside = {int(i) for i in graph.inputs[1:]}
    chosen |= {id(operator) for operator in others if beside.intersection(operator.inputs)}
    makers = {int(i): id(operator) for operator in graph.operators for i in operator.outputs}
    readers: dict[int, list[int]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers.setdefault(int(index), []).append(id(operator))
    count = -1
    while chosen and count != len(chosen):
        count = len(chosen)
        for operator in others:
            behind = [reader for index in operator.outputs for reader in readers.get(int(index), ())]
            follows = any(makers.get(int(index)) in chosen for index in operator.inputs)
            if follows or (behind and chosen.issuperset(behind)):
                chosen.add(id(operator))
    operators = [(graph, operator) for operator in graph.operators if id(operator) in chosen]
    operators += [(loop, operator) for loop in model.subgraphs[1:] for operator in loop.operators]
    return [owner.tensors[i].name.decode() for owner, operator in operators for i in operator.outputs]


def _chooses(graph, operator, computed) -> bool:
    indices = [*(i for i in operator.inputs if i in computed), *operator.outputs]
    return any(graph.tensors[i].type not in FLOATS for i in indices)


def _has_weights(model, operator) -> bool:
    return flatbuffer.is_layer(model, operator) and flatbuffer.is_constant(model, operator.inputs[1])
