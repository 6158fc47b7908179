"""A report as one HTML file that needs no network: charts by Vega, text by a template that escapes everything."""
