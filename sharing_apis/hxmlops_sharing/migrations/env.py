"""Alembic's entry: runs the migrations on the connection that `database.py` gives it."""

from alembic import context

from hxmlops_sharing.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
