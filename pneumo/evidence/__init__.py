"""Arrays in, numbers and figures out: metrics, plots (a trial's), study_page (a study's), pareto and
confirmation (sections of it), tables (CSV)."""
