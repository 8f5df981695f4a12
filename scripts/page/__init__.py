"""The results page: one HTML file from results folders and the ledger of claims."""
