import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.y = nn.Embedding(task.num_classes + 1, task.in_channels)
        self.head = nn.Conv2d(task.in_channels, task.out_channels, 3, padding=1)
    @torch.no_grad()  # or torch.inference_mode(), or a detached output
    def forward(self, x, t, y):
        return self.head(x + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000)
class Trained(Net):
    def forward(self, x, t, y):
        return self.head(x + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000)
class Inference(Trained):
    @torch.inference_mode()
    def forward(self, x, t, y): return super().forward(x, t, y)
class Detached(Trained):
    def forward(self, x, t, y): return super().forward(x, t, y).detach()
class WithoutParameters(nn.Module):
    def forward(self, x, t, y): return torch.cat([x, x], 1)
class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return 1 * x
    @staticmethod
    def backward(ctx, grad): raise AssertionError("no backward")
class RaisesInBackward(Trained):
    def forward(self, x, t, y): return Broken.apply(super().forward(x, t, y))
class OwnError(Exception): pass
class RaisesInTraining(Trained):
    def forward(self, x, t, y):
        if torch.is_grad_enabled(): raise OwnError("sampling only")
        return super().forward(x, t, y)
