"""python -m pneumo.replay: train a recorded trial again and compare the metrics.

record   the trial, its experiment and its candidate, read back from MLflow
retrain  train the candidate again, and record nothing
compare  the environments and the metrics, recorded and now
report   what is printed
"""
