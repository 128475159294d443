"""Addresses of databases that no search can use."""

MEMORY = [
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite+pysqlite:///:memory:",
    "sqlite:///file::memory:?cache=shared&uri=true",
    "sqlite:///file:studies?mode=memory&cache=shared&uri=true",
]
"""Databases in memory, in each way that SQLAlchemy takes."""
