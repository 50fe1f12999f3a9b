"""Reports: tables, figures and one page, from runs."""
