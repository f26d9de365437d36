"""Universal adversarial perturbations: the library behind the executable book.

A value flows one way: data -> model -> attack -> perturbation -> metric -> table or figure.
"""

__version__ = "0.1.0"
