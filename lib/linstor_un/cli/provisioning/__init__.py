"""Making a pair of datastores: what is asked, what is planned, and what there is already."""
