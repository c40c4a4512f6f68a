"""Networks in other frameworks' files, built anew as flat Keras graphs: ONNX, LiteRT and SavedModels.

A file is understood operator by operator, so that whatever is done with a network here can be done with it: explained,
compressed, fine-tuned, written in every form. What is built is then held against what the file answers.
"""

from toolkit.factory.graphs.opening import check_answers, is_graph, open_graph

__all__ = ["check_answers", "is_graph", "open_graph"]
