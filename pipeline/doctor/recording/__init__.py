"""Answers of servers, recorded without secrets and replayed offline."""
