"""What a collaborator opens: one spec of a report, shown as a page, as Markdown or as a W&B report, and read again from its files."""
