"""Convolution arithmetic: output sizes, and what each layer of a network holds, computes, sees and keeps in memory.

Works on a model through its public attributes only, so importing it imports no framework.
"""

from toolkit.arithmetic.sizes import conv_output_size
from toolkit.arithmetic.table import LayerRow, count_macs, count_params, format_table, layer_table, peak_memory, summary
from toolkit.arithmetic.working import Working, working

__all__ = [
    "LayerRow",
    "Working",
    "conv_output_size",
    "count_macs",
    "count_params",
    "format_table",
    "layer_table",
    "peak_memory",
    "summary",
    "working",
]
