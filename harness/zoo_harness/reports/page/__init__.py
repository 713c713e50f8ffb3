"""Make the page of ``zoo report``: one HTML file with a table, charts and text."""
