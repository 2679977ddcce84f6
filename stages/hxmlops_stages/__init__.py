"""The programs that the stages of a workflow run: `python -m hxmlops_stages STAGE ...`."""
