"""When reweighting helps, by how much, and what to choose: a plan of `presence train` runs, and what they ended at.

A plan (`plans/*.yaml`) names texts, arms, learning rates and seeds. Every combination is a cell, which is one recipe
and one run. Rows are what runs ended at; tables and figures are made of rows alone.
"""
