"""TensorFlow Serving's messages, as far as they are spoken here, without TensorFlow.

``tensorflow-serving-api`` brings them too, but importing it imports TensorFlow: seconds, and hundreds of megabytes that
a server on another runtime does not need. On the wire only the numbers and types of fields count, so they are put
together from the tables below, in a pool of their own that meets no other's. Tests hold them against the originals.
"""

import re

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

#: Fields by message: number, type and name; ``[type]`` is repeated, ``{type}`` a map from strings.
_MESSAGES = {
    # google/protobuf
    "Int64Value": "1 int64 value",
    "Any": "1 string type_url; 2 bytes value",
    # tensorflow/core/framework and protobuf
    "Dim": "1 int64 size; 2 string name",
    "TensorShape": "2 [Dim] dim; 3 bool unknown_rank",
    "Tensor": "1 DataType dtype; 2 TensorShape tensor_shape; 4 bytes tensor_content; 5 [float] float_val; "
    "7 [int32] int_val; 8 [bytes] string_val",
    "TensorInfo": "1 string name; 2 DataType dtype; 3 TensorShape tensor_shape",
    "SignatureDef": "1 {TensorInfo} inputs; 2 {TensorInfo} outputs; 3 string method_name; 4 {Tensor} defaults",
    "StatusProto": "1 Code error_code; 2 string error_message",
    # tensorflow_serving/apis
    "ModelSpec": "1 string name; 2 Int64Value version; 3 string signature_name; 4 string version_label",
    "PredictRequest": "1 ModelSpec model_spec; 2 {Tensor} inputs; 3 [string] output_filter",
    "PredictResponse": "1 {Tensor} outputs; 2 ModelSpec model_spec",
    "SignatureDefMap": "1 {SignatureDef} signature_def",
    "GetModelMetadataRequest": "1 ModelSpec model_spec; 2 [string] metadata_field",
    "GetModelMetadataResponse": "1 ModelSpec model_spec; 2 {Any} metadata",
    "ModelVersionStatus": "1 int64 version; 2 State state; 3 StatusProto status",
    "GetModelStatusRequest": "1 ModelSpec model_spec",
    "GetModelStatusResponse": "1 [ModelVersionStatus] model_version_status",
}

#: Numbers of a tensor's types.
DATA_TYPES = {"DT_INVALID": 0, "DT_FLOAT": 1, "DT_UINT8": 4, "DT_STRING": 7}

_ENUMS = {
    "DataType": DATA_TYPES,
    "Code": {"OK": 0, "FAILED_PRECONDITION": 9},
    "State": {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50},
}

_PACKAGE = "toolkit.serving"
_Field = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="toolkit/serving/messages.proto", package=_PACKAGE, syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, place in values.items():
            enum.value.add(name=value, number=place)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split("; "):
            number, kind, field_name = field.split()
            inner = kind.strip("[]{}")
            added = message.field.add(name=field_name, number=int(number), label=_Field.LABEL_OPTIONAL)
            if kind[0] == "{":
                entry = message.nested_type.add(
                    name=re.sub(r"(?:^|_)(\w)", lambda m: m[1].upper(), field_name) + "Entry"
                )
                entry.options.map_entry = True
                for part, part_kind, place in (("key", "string", 1), ("value", inner, 2)):
                    _set_type(entry.field.add(name=part, number=place, label=_Field.LABEL_OPTIONAL), part_kind)
                inner = f"{name}.{entry.name}"
            if kind[0] in "[{":
                added.label = _Field.LABEL_REPEATED
            _set_type(added, inner)
    return file


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _ENUMS or kind[0].isupper():
        field.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message_type(name: str) -> type[Message]:
    """Look a message's class up by its name, such as ``PredictRequest``."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
