-- PostgreSQL runs this once, when it creates its folder. POSTGRES_DB creates MLflow's database. Optuna needs a database of its
-- own, because both have a table alembic_version.
CREATE DATABASE optuna;
