"""The pretrained base: a vision-language model that points at what it is told, and an action expert that lifts it.

On random scenes (`skillweld sim scenes`): things of all suites before tables of any look. An instruction names one thing
or two. Learned from it:

- which patch of each picture the first and the second thing are in (softmax over patches),
- which of all things the instruction's first and second are,
- what is in every patch that holds the middle of a thing, and where in metres it is,
- where both things of the instruction are,
- to lift the first thing, for instructions that say so: what the scripted expert of the scene means to do next.

All but the last two are read from the language model's middle, so that its second half can fetch with one attention what
the first half has found. Coordinates alone do not teach which word goes with which colour; pointing does, within some
hundred steps.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from . import statistics
from .checkpoint import save_whole
from .config import small
from .loop import Run, asked
from .policy import Policy
from .preprocess import CROP_AREA, center_crop
from .prompts import PromptBatch, train_tokenizer

#: Other words for things, so that language is wider than the suites'.
SYNONYMS = {
    "cube": ["block"], "plate": ["dish", "round dish"], "can": ["tin"], "box": ["pack"], "bottle": ["flask"],
    "milk": ["carton", "milk carton"], "butter": ["brick"], "basket": ["beige box"], "drawer": ["drawer's handle"],
    "cabinet": ["cupboard"], "tray": ["white tray"], "mat": ["green mat"], "zone": ["patch"], "disc": ["puck"],
    "left": ["leftmost"], "right": ["rightmost"], "from": ["on"], "next to": ["beside"], "tea box": ["box of tea"],
}  # fmt: skip
ONE = ["point to the {a}", "touch the {a}", "look at the {a}", "open the {a}", "take the {a}", "find the {a}"]
TWO = [
    "put the {a} on the {b}", "put the {a} in the {b}", "place the {a} into the {b}", "stack the {a} on the {b}",
    "push the {a} into the {b}", "put the {a} on top of the {b}", "put the {a} and the {b} in the tray",
    "take the {a} and set it on the {b}", "open the {b} and put the {a} in it", "put the {a} in the {b} and open the drawer",
]  # fmt: skip
LIFT = ["pick up the {a}", "lift the {a}", "raise the {a}"]
#: How often an instruction names one thing, two things, or the one that is being lifted.
SHARES = (0.15, 0.35, 0.5)

#: Action tokens that answer for the first and the second thing.
SLOTS = (4, 10)
#: Where a state has both fingers' places, the first from 0 up, the second down.
FINGERS = 6
#: Metres to numbers about one, from the middle of the table.
POSITION_SCALE, MIDDLE = 10.0, (0.2, 0.0, 0.03)


class Scenes:
    """All scenes of a folder, in memory."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.names = json.loads((folder / "things.json").read_text())
        files = sorted(folder.glob("scenes-*.safetensors"))
        if not files:
            raise SystemExit(f"{folder} has no scenes; `skillweld sim scenes {folder} --count 40000` draws them")
        parts = []
        for path in files:
            part = load_file(path)
            # A few at a time stay in the cache.
            cropped = [torch.from_numpy(center_crop(some.numpy())) for some in part["images"].split(64)]
            part["images"] = torch.cat(cropped)
            parts.append(part)
        self.pixels = torch.cat([part["images"] for part in parts])
        # Small; pictures are not, and wait where there is room for them.
        self.device = torch.empty(0).device
        self.states, self.things, self.positions, pixels, self.lifted, self.actions = (
            torch.cat([part[name] for part in parts]).to(self.device)
            for name in ("state", "things", "positions", "pixels", "lifted", "actions")
        )
        self.counts = (self.things >= 0).sum(1).cpu().numpy()
        # What the crop makes of places in the picture, as shares of its side.
        side = self.pixels.shape[2]
        margin = (1 - CROP_AREA**0.5) / 2
        share = (pixels / side - margin) / CROP_AREA**0.5
        self.seen = ((share >= 0) & (share < 1)).all(-1) & (pixels >= 0).all(-1)
        self.shares = share.clamp(0, 1 - 1e-6)

    def batch(self, random, size):
        """Indices of scenes, and of two different things in each."""
        scene = random.integers(len(self.states), size=size)
        count = self.counts[scene]
        first = random.integers(count)
        second = (first + 1 + random.integers(count - 1)) % count
        return scene, first, second


def reworded(name, random):
    for word, others in SYNONYMS.items():
        if word in name and random.random() < 0.2:
            name = name.replace(word, others[random.integers(len(others))], 1)
    return name


class Pointers(nn.Module):
    """What pretraining reads answers from, and training throws away."""

    def __init__(self, width, kinds):
        super().__init__()
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.keys = nn.Linear(width, width)
        self.kinds = nn.Linear(width, kinds + 1)
        self.names = nn.ModuleList(nn.Linear(width, kinds) for _ in SLOTS)
        place = lambda: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))
        self.positions = nn.ModuleList(place() for _ in SLOTS)
        self.place = place()


def losses(policy, pointers, scenes, prompts, random, size, proprio_entry):
    config = policy.config
    scene, *pair = scenes.batch(random, size)
    form = random.choice(3, size=size, p=SHARES)
    forms = (ONE, TWO, LIFT)
    pair[0] = np.where(form == 2, scenes.lifted[scene].cpu().numpy(), pair[0])
    name = lambda slot: [reworded(scenes.names[i], random) for i in scenes.things[scene, slot].tolist()]
    texts = [forms[f][random.integers(len(forms[f]))].format(a=a, b=b) for f, a, b in zip(form, name(pair[0]), name(pair[1]))]
    two = torch.from_numpy(form == 1).to(scenes.device)
    state = scenes.states[scene]
    proprio = torch.from_numpy(statistics.normalize(state.cpu().numpy(), proprio_entry, clip=True)).to(scenes.device)
    hidden = policy.backbone(scenes.pixels[scene].to(scenes.device), *prompts(texts))
    (task, early), (_, action) = hidden[config.language.depth // 2], hidden[-1]
    side = config.image_side // config.patch_side
    per_image = side * side
    # The published slice of task tokens begins one position early: at the first word, and ends before the last patch.
    keys = pointers.keys(task)
    found = {"total": None, "point": 0.0, "hit": 0.0, "name": 0.0, "position": 0.0}
    for slot, things in enumerate(pair):
        wanted = torch.ones(size, dtype=torch.bool) if slot == 0 else two
        names = pointers.names[slot](early[:, SLOTS[slot]]).float()
        off = F.cross_entropy(names, scenes.things[scene, things], reduction="none")
        found["name"] += (off * wanted).sum() / wanted.sum()
        place = scenes.positions[scene, things]
        answer = pointers.positions[slot](action[:, SLOTS[slot]]).float()
        off = (answer - scaled(place)).abs().mean(1)
        found["position"] += (off * wanted).sum() / wanted.sum()
        for image in range(config.images):
            query = pointers.queries[2 * slot + image](early[:, SLOTS[slot]])
            cell = (scenes.shares[scene, things, image] * side).long()
            target = 1 + image * per_image + cell[:, 1] * side + cell[:, 0]
            first = image * per_image + (image == 0)
            there = scenes.seen[scene, things, image] & wanted & (target < config.patches)
            scores = torch.einsum("bd,bkd->bk", query, keys).float()[:, first : min(config.patches, 1 + (image + 1) * per_image)]
            scores = scores * config.language.width**-0.5
            target = (target - first).clamp(0, scores.shape[1] - 1)
            loss = F.cross_entropy(scores, target, reduction="none")
            found["point"] += (loss * there).sum() / there.sum().clamp(min=1)
            if slot == 0 and image == 0:
                found["hit"] = ((scores.argmax(1) == target) & there).sum() / there.sum().clamp(min=1)
    found["kind"], found["place"] = patch_losses(pointers, scenes, scene, task, config)
    lift = torch.from_numpy(form == 2).to(scenes.device)
    meant = policy.action_head(hidden, policy.proprio_projector(proprio))
    off = (meant.float() - scenes.actions[scene]).abs().mean((1, 2))
    found["lift"] = (off * lift).sum() / lift.sum().clamp(min=1)
    found["total"] = found["point"] / 4 + 0.5 * found["name"] + found["position"] + 0.5 * found["kind"] + found["place"] + 3 * found["lift"]
    return found


def patch_losses(pointers, scenes, scene, task, config):
    """Of the patches that hold a thing's middle: what it is (others count a twentieth, as nothing), and where, off by how much."""
    side = config.image_side // config.patch_side
    kinds = len(scenes.names)
    labels = torch.full((len(scene), config.patches + 1), kinds)
    places = torch.zeros(len(scene), config.patches + 1, 3)
    rows = torch.arange(len(scene))
    for slot in range(scenes.things.shape[1]):
        thing = scenes.things[scene, slot]
        for image in range(config.images):
            cell = (scenes.shares[scene, slot, image] * side).long()
            at = 1 + image * side * side + cell[:, 1] * side + cell[:, 0]
            there = scenes.seen[scene, slot, image] & (thing >= 0)
            labels[rows[there], at[there]] = thing[there]
            places[rows[there], at[there]] = scenes.positions[scene, slot][there]
    weight = torch.ones(kinds + 1)
    weight[kinds] = 0.05
    # The slice of task tokens begins one position early: at a word, and ends before the last patch.
    labels, places, patches = labels[:, 1 : config.patches], places[:, 1 : config.patches], task[:, 1:]
    kind = F.cross_entropy(pointers.kinds(patches).float().flatten(0, 1), labels.flatten(), weight)
    # A picture from the wrist does not say where the wrist is.
    held = (labels < kinds) & (torch.arange(labels.shape[1]) < side * side)
    off = pointers.place(patches[held]).float() - scaled(places[held])
    return kind, off.abs().mean()


def scaled(positions):
    return POSITION_SCALE * (positions - torch.tensor(MIDDLE))


def run(args):
    # Weights that begin at random; batches have a generator of their own.
    torch.manual_seed(args.seed)
    scenes = Scenes(args.scenes)
    words = [text.format(a=a, b=b) for text in ONE + TWO + LIFT for a in scenes.names for b in scenes.names[::5]]
    words += [word for others in SYNONYMS.values() for word in others]
    tokenizer = train_tokenizer(words, args.vocabulary)
    config = small(tokenizer.get_vocab_size())
    policy, pointers = Policy(config), Pointers(config.language.width, len(scenes.names))
    # Actions of pretraining are as they are: −1 … 1.
    actions = np.concatenate([-np.ones((50, config.action)), np.ones((50, config.action))])
    table = statistics.dataset("skillweld_scenes", actions, scenes.states.cpu().numpy(), len(scenes.states))
    proprio = table["skillweld_scenes"]["proprio"]
    # All that was seen, and fingers that are closed on nothing: what its experts will see beyond that is cut off.
    proprio["q01"] = [*proprio["min"][:FINGERS], 0.0, proprio["min"][-1]]
    proprio["q99"] = [*proprio["max"][:-1], 0.0]
    run = Run(args.out, [policy, pointers], args.steps, args.rate, seed=args.seed, of=asked(args))
    prompts = PromptBatch(tokenizer)
    run.go(lambda random: losses(policy, pointers, scenes, prompts, random, args.batch, proprio))
    run.curves()
    save_whole(args.out, policy, tokenizer, table, args.steps)
