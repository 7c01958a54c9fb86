"""Command line: `python -m skillweld_train pretrain | begin | finetune`."""

import argparse

import torch


def main():
    parser = argparse.ArgumentParser(prog="skillweld_train", description=__doc__)
    parser.add_argument("--threads", type=int, help="CPU threads; without it, all cores")
    commands = parser.add_subparsers(dest="command", required=True)

    pretrain = commands.add_parser("pretrain", help="the base, from random scenes")
    pretrain.add_argument("scenes", help="folder of `skillweld sim scenes`")
    pretrain.add_argument("out")
    pretrain.add_argument("--vocabulary", type=int, default=512)

    begin = commands.add_parser("begin", help="the policy that `finetune --expert self` begins from, which merges measure from")
    begin.add_argument("base", help="folder of a whole policy")
    begin.add_argument("out")

    finetune = commands.add_parser("finetune", help="a policy, from demonstrations")
    finetune.add_argument("base", help="folder of a whole policy to begin from")
    finetune.add_argument("out")
    finetune.add_argument("--demos", nargs="+", required=True, help="folders of `skillweld sim demos`")
    finetune.add_argument("--without", nargs="+", default=[], metavar="WORD", help="of --demos, not what is told with one of these words")
    finetune.add_argument("--skill", nargs="+", default=[], metavar="DEMOS", help="co-training: of these is half of every batch")
    finetune.add_argument("--lora", type=int, metavar="RANK", help="an adapter of this rank; without it, all weights")
    finetune.add_argument("--begin", metavar="EXPERT", help="with --lora: go on from this adapter and its action expert")
    finetune.add_argument("--thin", type=float, default=0.0, metavar="SHARE", help="with --lora: of the task vector, what each step leaves out, as masks of a merge will")
    for command in (begin, finetune):
        command.add_argument("--expert", choices=["cross", "self"], default="cross", help="kind of action expert")
    for command in (pretrain, begin, finetune):
        command.add_argument("--seed", type=int, default=0)
    for command, steps, rate in ((pretrain, 2400, 1e-3), (finetune, 2000, 5e-4)):
        command.add_argument("--steps", type=int, default=steps)
        command.add_argument("--batch", type=int, default=64)
        command.add_argument("--rate", type=float, default=rate, help="peak learning rate")

    args = parser.parse_args()
    if args.command == "finetune" and args.begin and not args.lora:
        parser.error("--begin goes on from an adapter: say its rank with --lora")
    if args.command == "finetune" and args.thin and not (args.lora and 0 < args.thin < 1):
        parser.error("--thin is a share below 1 of what --lora trains")
    if torch.cuda.is_available():
        # What is made, and what trains, is there; data come as they are needed.
        torch.set_default_device("cuda")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.command == "pretrain":
        from .pretrain import run
    elif args.command == "begin":
        from .finetune import begin as run
    else:
        from .finetune import run
    run(args)


if __name__ == "__main__":
    main()
