"""Reports: everything a person reads is made from the metrics.json document and nothing else.

    table.before_after_rows(metrics)      pure rows, shared by the three views below
    html.write_html(metrics, path)        one self-contained, offline page
    terminal.before_after_table(metrics)  a rich table for the command line
    notebook.snippet(metrics)             what ``_repr_html_`` returns; no scripts

The document is ``metrics.json`` of a run folder, schema ``secateur.metrics/1``. A value that was
not measured is null (or left out) and reads "not measured"; no view invents a number for it.
"""
