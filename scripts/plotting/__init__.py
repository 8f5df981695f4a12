"""Figures from the tables that `vla-bench report --out` writes."""
