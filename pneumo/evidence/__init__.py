"""Compute figures from labels and probabilities, and draw them. No module here reads or writes files, or knows MLflow.

- figures: `metrics`, `scaling` (temperature), `intervals` (bootstrap, McNemar's test), `comparison`
  (a trial and the baseline), `gate` (the decision to promote)
- pictures and pages: `plots` (of a trial or a promotion), `overlay` (a heat map over a picture), `report` (of a
  study, or of several side by side), `model_card` (of a registered model), `tables` (CSV)
"""
