"""Arrays in, numbers and figures out.

- of pictures: `metrics`, `scaling` (temperature), `intervals` (bootstrap, McNemar), `gate` (the decision)
- to look at: `plots` (a trial's), `overlay` (a picture's), `study_page` (a study's; `pareto` and `confirmation` are sections
  of it), `card` (a registered model's), `tables` (CSV)
"""
