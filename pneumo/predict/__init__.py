"""python -m pneumo.predict: predict pictures with a registered model.

pictures  the files that a command line names
model     the registered model, loaded
loop      predict batch by batch; progress the bar, output the rows on standard output
explain   Grad-CAM overlays
export    the model as a file for other runtimes
"""
