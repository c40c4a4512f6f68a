"""Teaching on the page: visitors' pictures in, a network of their own out, without a word of Gradio.

A visitor's pictures and networks lie in a folder of their own, which goes with the visit. A lesson is a process of its
own, so that it can be ended at any moment and gives all its memory back.
"""
