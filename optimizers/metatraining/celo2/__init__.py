"""Meta-training of Celo2: a rule of 347 numbers behind a learning rate.

Boundary: the update of one lane and the vector that is searched; ``metatraining`` does the search.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142.
"""
