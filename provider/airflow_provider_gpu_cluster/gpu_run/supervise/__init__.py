"""The processes that run an attempt from claim to exit record, and the resources that they give it."""
