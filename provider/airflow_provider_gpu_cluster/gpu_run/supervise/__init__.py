"""The processes that run an attempt from claim to exit record, and what they give it."""
