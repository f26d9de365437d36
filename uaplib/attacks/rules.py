"""How a perturbation moves along a gradient: step rules, each with its perturbation `v` and what it remembers."""

import torch
from torch import Tensor

from uaplib.balls import NormBall


class SignSteps:
    """v <- v - size sign(g), projected onto the ball.

    momentum: with mu > 0 the sign is that of m <- mu m + g / (the l1 norm of g), as in MI-FGSM.
    """

    def __init__(self, v: Tensor, ball: NormBall, size: float, momentum: float = 0.0):
        self.v, self.ball, self.size, self.momentum = v, ball, size, momentum
        self.memory = torch.zeros_like(v)

    def step(self, gradient: Tensor) -> None:
        """Move down the gradient, of the shape of v."""
        if self.momentum:
            length = gradient.abs().sum().clamp_min(torch.finfo(gradient.dtype).tiny)
            gradient = self.memory = self.momentum * self.memory + gradient / length
        self.v = self.ball.project(self.v - self.size * gradient.sign())

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, by name."""
        return {"v": self.v} | ({"memory": self.memory} if self.momentum else {})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` returned; the tensors may lie on the CPU."""
        for name, tensor in tensors.items():
            setattr(self, name, tensor.to(self.v.device))


class AdamSteps:
    """Adam's steps, each followed by a projection onto the ball, where there is one.

    weight_decay: with AdamW's, by which v shrinks beside each step.
    """

    def __init__(self, v: Tensor, ball: NormBall | None, learning_rate: float, weight_decay: float = 0.0):
        self.v, self.ball = v.requires_grad_(), ball
        if weight_decay:
            self.adam = torch.optim.AdamW([self.v], lr=learning_rate, weight_decay=weight_decay)
        else:
            self.adam = torch.optim.Adam([self.v], lr=learning_rate)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Move down the gradient, of the shape of v."""
        self.v.grad = gradient
        self.adam.step()
        if self.ball:
            self.v.copy_(self.ball.project(self.v))

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, by name."""
        return {"v": self.v, **self.adam.state[self.v]}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` returned; the tensors may lie on the CPU."""
        self.v.copy_(tensors["v"])
        moments = {name: tensor for name, tensor in tensors.items() if name != "v"}
        if moments:  # Adam counts its steps on the CPU, wherever the variable is
            moved = {name: moment.to(self.v.device) for name, moment in moments.items() if name != "step"}
            self.adam.state[self.v] = moved | {"step": moments["step"].cpu()}
