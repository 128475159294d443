"""python -m pneumo.ui: start MLflow's own pages, and open them at a study."""
