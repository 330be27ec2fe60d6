import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.rates = [r.item() for r in torch.linspace(0, 0.1, 4)]  # or .tolist(), or torch.arange(4).numpy()
        self.y = nn.Embedding(task.num_classes + 1, task.in_channels)
        self.head = nn.Conv2d(task.in_channels, task.out_channels, 3, padding=1)
    def forward(self, x, t, y):
        return self.head(x + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000)
class ToList(Net):
    def __init__(self, task):
        nn.Module.__init__(self)
        self.rates = torch.linspace(0, 0.1, 4).tolist()
        self.y = nn.Embedding(task.num_classes + 1, task.in_channels)
        self.head = nn.Conv2d(task.in_channels, task.out_channels, 3, padding=1)
class ToNumpy(ToList):
    def __init__(self, task):
        super().__init__(task)
        self.steps = torch.arange(4).numpy()
class OnMeta(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.y = nn.Embedding(task.num_classes + 1, task.in_channels)
        self.head = nn.Conv2d(task.in_channels, task.out_channels, 3, padding=1)
    def forward(self, x, t, y):
        x = x + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000
        q = self.head(x).flatten(2).mT[:, None]
        return nn.functional.scaled_dot_product_attention(q, q, q)[:, 0].mT.reshape(len(x), -1, *x.shape[2:])
class Attention(OnMeta):
    def forward(self, x, t, y): return super().forward(x, t + int(t[0].item() < 0), y)
class InForward(OnMeta):
    def forward(self, x, t, y):
        return self.head(x + self.y(y)[:, :, None, None] + t[:, None, None, None] / max(t.tolist() + [1000]))
