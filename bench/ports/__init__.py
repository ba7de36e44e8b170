"""Ports: ways to carry a plug-in from one backbone to another."""
