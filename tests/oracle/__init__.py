"""
The one oracle: what was asked of HQ and of outboxes, folded without the product's code, against files read in SQL.

It never takes the product's word for what was done: a change set that HQ was asked to commit, and for which it raised
nothing, is committed. May import the declared contexts, for the names of columns, and nothing else of the product.
"""
