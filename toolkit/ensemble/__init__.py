"""Several crops of a picture and several networks, whose probabilities are averaged."""

from toolkit.ensemble.ensemble import Ensemble, Member

__all__ = ["Ensemble", "Member"]
