"""One call for each command of the command line, with the command's options as keywords of the same names.

All of it stands in ``toolkit`` itself: ``toolkit.finetune("photos", model="googlenet")``. Importing this imports no
framework.
"""
