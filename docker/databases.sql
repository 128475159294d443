-- Run once, when the database folder is new. MLflow's own database is made by POSTGRES_DB; Optuna's stands apart from it
-- because both keep a table alembic_version.
CREATE DATABASE optuna;
