"""Several crops of a picture and several networks, whose probabilities are averaged."""
