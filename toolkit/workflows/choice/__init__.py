"""The choice of a network by its accuracy on a sample of the pictures, its speed and its size."""
