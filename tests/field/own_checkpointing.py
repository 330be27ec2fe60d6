from torch import nn
from torch.utils.checkpoint import checkpoint
class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.up, self.down = nn.Conv2d(d, 4 * d, 1), nn.Conv2d(4 * d, d, 1)
    def forward(self, h): return h + self.down(nn.functional.gelu(self.up(h)))
class Net(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.stem = nn.Conv2d(task.in_channels, 64, 3, padding=1)
        self.y = nn.Embedding(task.num_classes + 1, 64)
        self.blocks = nn.ModuleList(Block(64) for _ in range(6))
        self.head = nn.Conv2d(64, task.out_channels, 3, padding=1)
    def forward(self, x, t, y):
        h = self.stem(x) + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000
        for block in self.blocks: h = checkpoint(block, h, use_reentrant=False)
        return self.head(h)


class Plain(Net):
    def forward(self, x, t, y):
        h = self.stem(x) + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000
        for block in self.blocks: h = self.call(block, h)
        return self.head(h)
    def call(self, block, h): return block(h)
class Reentrant(Plain):
    def call(self, block, h): return checkpoint(block, h, use_reentrant=True)
class OfFunctions(Plain):
    def call(self, block, h): return checkpoint(lambda h: block(h), h, use_reentrant=False)
class AttentionBlock(Block):
    def forward(self, h):
        q = h.flatten(2).transpose(1, 2)[:, None]
        return super().forward(h + nn.functional.scaled_dot_product_attention(q, q, q)[:, 0].mT.view_as(h))
class AttentionPlain(Plain):
    def __init__(self, task):
        super().__init__(task)
        self.blocks = nn.ModuleList(AttentionBlock(64) for _ in range(2))
class AttentionReentrant(AttentionPlain, Reentrant): pass
class AttentionOfFunctions(AttentionPlain, OfFunctions): pass
class AttentionNet(AttentionPlain):
    def call(self, block, h): return checkpoint(block, h, use_reentrant=False)
