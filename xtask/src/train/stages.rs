//! What is trained, in which order, from what: every stage is one command.

use std::sync::LazyLock;

use crate::proof::embodiments;
use crate::proof::recipe::{Member, SUITES};

/// What runs a stage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Skillweld,
    Train,
}

/// Something that is made once, in `target/train/<name>`.
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Of a policy that is shipped, what it is.
    pub(crate) what: Option<&'static str>,
    /// Options of `skillweld eval run`: trials in which its card says how good it is; empty for what has learned no task.
    pub(crate) trials: String,
    pub(super) tool: Tool,
    /// Words of the command; `@name` is the folder of a stage, and this stage's own comes after those that it needs.
    pub(super) words: String,
}

/// New skills for RETAIN in the order in which they are learned, and their tasks.
pub(crate) const SKILLS: [(&str, &str); 3] =
    [("stack", "goal_stack"), ("push", "goal_push"), ("tea", "object_tea")];

/// How a new skill is learned.
const FINETUNED: &str = "--lora 16 --batch 32 --steps 1500 --rate 7e-4";

/// How far the chain follows what it was finetuned to.
pub(crate) const CHAIN_ALPHA: &str = "--alpha 0.7";

/// All of them, each after those that it needs.
pub(super) static STAGES: LazyLock<Vec<Stage>> = LazyLock::new(|| {
    let mut stages = vec![skillweld("scenes", "sim scenes @scenes --count 40960"), base()];
    SUITES.iter().for_each(|suite| stages.extend(expert(suite)));
    stages.push(base_with_self_attention());
    stages.extend(SUITES.iter().map(|suite| with_self_attention(suite)));
    stages.extend(retain());
    stages.extend(embodiments::on_other_arms().flat_map(on_another_arm));
    stages
});

impl Stage {
    /// Folders of stages in its command, but its own.
    pub(super) fn needs(&self) -> impl Iterator<Item = &str> {
        let folders = self.words.split(' ').filter_map(|word| word.strip_prefix('@'));
        folders.filter(|name| *name != self.name)
    }

    /// Whether it is a training, which leaves curves of its own.
    pub(crate) fn trains(&self) -> bool {
        self.tool == Tool::Train
    }

    /// What it begins from, where it finetunes.
    pub(crate) fn base(&self) -> Option<&str> {
        self.needs().next().filter(|_| self.words.starts_with("finetune "))
    }

    /// Its command as one would type it where all stages' folders lie.
    pub(crate) fn line(&self) -> String {
        let program = match self.tool {
            Tool::Skillweld => "skillweld",
            Tool::Train => "python -m skillweld_train",
        };
        format!("{program} {}", self.words.replace('@', ""))
    }

    fn shipped(self, what: &'static str, trials: impl Into<String>) -> Self {
        Self { what: Some(what), trials: trials.into(), ..self }
    }
}

fn skillweld(name: impl Into<String>, words: impl Into<String>) -> Stage {
    Stage { name: name.into(), what: None, trials: String::new(), tool: Tool::Skillweld, words: words.into() }
}

fn train(name: impl Into<String>, words: impl Into<String>) -> Stage {
    Stage { tool: Tool::Train, ..skillweld(name, words) }
}

fn base() -> Stage {
    train("base", "pretrain @scenes @base --seed 1 --steps 6000")
        .shipped("The pretrained base of all experts: it points at what it is told, and lifts it", "")
}

/// A round of corrections: which are recorded, and how they are learned.
struct Round {
    /// Options of `skillweld sim demos`.
    recorded: &'static str,
    /// Options of `finetune`.
    learned: &'static str,
}

/// On the layouts of the first round, whichever round it is.
const FIRST_LAYOUTS: &str = "--episodes 200";
const FIRST: Round = Round { recorded: FIRST_LAYOUTS, learned: "--steps 900 --rate 5e-4" };
const SECOND: Round = Round { recorded: FIRST_LAYOUTS, learned: "--batch 32 --steps 3600 --rate 7e-4" };

/// An expert's corrections, round after round. The five tasks of goal and long are different things to do, and took more.
fn rounds(suite: &str) -> &'static [Round] {
    match suite {
        "goal" => &[
            FIRST,
            SECOND,
            Round { recorded: FIRST_LAYOUTS, learned: "--batch 32 --steps 3600 --rate 6e-4" },
        ],
        "long" => &[
            FIRST,
            SECOND,
            Round {
                recorded: "--round 3 --episodes 300",
                learned: "--batch 32 --steps 4200 --rate 7e-4 --thin 0.2",
            },
        ],
        _ => &[FIRST],
    }
}

/// Trained on demonstrations, then also on what to do where the training before led it.
fn expert(suite: &str) -> Vec<Stage> {
    let (demos, first) = (format!("demos-{suite}"), format!("{suite}-first"));
    let show = format!("sim demos @{demos} --suite {suite} --episodes 100 --noise 0.2");
    let begin = format!("finetune @base @{first} --demos @{demos} --lora 16 --steps 1800 --rate 1e-3");
    let mut stages = vec![skillweld(&*demos, show), train(&*first, begin)];
    let rounds = rounds(suite);
    let (mut from, mut known) = (first, format!("@{demos}"));
    for (index, Round { recorded, learned }) in rounds.iter().enumerate() {
        let round = index + 1;
        let corrections =
            if index == 0 { format!("corrections-{suite}") } else { format!("corrections-{suite}-{round}") };
        let to = if round == rounds.len() { suite.to_owned() } else { format!("{suite}-round-{round}") };
        let correct = format!(
            "sim demos @{corrections} --suite {suite} --policy @{from} --base @base {recorded} --noise 0.2"
        );
        known = format!("{known} @{corrections}");
        let go_on = format!("finetune @base @{to} --demos {known} --lora 16 --begin @{from} {learned}");
        stages.extend([skillweld(corrections, correct), train(&*to, go_on)]);
        from = to;
    }
    let last = stages.pop().map(|last| {
        last.shipped(
            "An expert: a LoRA adapter on `base`, and an action expert with cross-attention alone",
            format!("--suite {suite}"),
        )
    });
    stages.extend(last);
    stages
}

/// What experts with self-attention are before they have learned anything.
fn base_with_self_attention() -> Stage {
    train("base-self", "begin @base @base-self --expert self").shipped(
        "To compare: `base` with the random action expert that all experts with self-attention begin from",
        "",
    )
}

/// Its action expert begins from random weights, the same in all suites: those of `base-self`.
fn with_self_attention(suite: &str) -> Stage {
    let words = format!(
        "finetune @base @{suite}-self --demos @demos-{suite} @corrections-{suite} --lora 16 --batch 32 --steps 2000 --rate 1e-3 --expert self"
    );
    train(format!("{suite}-self"), words).shipped(
        "To compare: a LoRA adapter on `base`, and VLA-Adapter's action expert, which has self-attention",
        format!("--suite {suite}"),
    )
}

/// From demonstrations on that arm, once.
fn on_another_arm(Member { expert: name, own, .. }: Member) -> [Stage; 2] {
    let show = format!("sim demos @demos-{name} {own} --episodes 100 --noise 0.2");
    let learn =
        format!("finetune @base @{name} --demos @demos-{name} --lora 16 --batch 32 --steps 2000 --rate 1e-3");
    [
        skillweld(format!("demos-{name}"), show),
        train(name, learn).shipped(
            "An expert for an arm of another shape: a LoRA adapter on `base`, and an action expert",
            own,
        ),
    ]
}

/// Suites that the policy for RETAIN ends with: all but long, which takes as many steps as they do together.
pub(crate) const GENERALIST: [&str; 3] = ["spatial", "object", "goal"];

/// A policy of many tasks, and new tasks that it is finetuned on.
fn retain() -> Vec<Stage> {
    let demos: String =
        GENERALIST.iter().map(|suite| format!(" @demos-{suite} @corrections-{suite}")).collect();
    // All that the new tasks are told with has one of these words, and nothing else has.
    let known = format!("--demos{demos} --without tea disc");
    // Trained whole, it forgets what the base knows of words, and takes whatever is near.
    let adapter = format!(
        "finetune @base @generalist-adapter {known} --lora 16 --begin @spatial --batch 32 --steps 4800 --rate 7e-4"
    );
    let whole =
        "retain --base @base --finetuned @generalist-adapter --alpha 1 --statistics finetuned @generalist";
    let mut stages = vec![
        train("generalist-adapter", adapter),
        skillweld("generalist", whole).shipped(
            "For RETAIN: one policy of three suites, but for three tasks that it has never seen",
            GENERALIST.map(|suite| format!("--suite {suite}")).join(" "),
        ),
    ];
    // Each skill is learned from what the one before it left.
    let mut from = "generalist".to_owned();
    for (index, (skill, task)) in SKILLS.into_iter().enumerate() {
        let show = format!("sim demos @demos-{skill} --task {task} --episodes 50 --noise 0.2");
        let learn = format!("finetune @{from} @{skill} --demos @demos-{skill} {FINETUNED}");
        let chain = format!("chain-{}", index + 1);
        let keep = format!(
            "retain --base @{from} --finetuned @{skill} {CHAIN_ALPHA} --statistics finetuned @{chain}"
        );
        stages.push(skillweld(format!("demos-{skill}"), show));
        stages.push(train(skill, learn).shipped(
            "For RETAIN: what fifty demonstrations of a new task alone make of a policy that knows much, as a LoRA adapter on it",
            format!("--task {task}"),
        ));
        stages.push(skillweld(chain.clone(), keep));
        from = chain;
    }
    stages.pop();
    let both = format!("finetune @generalist @stack-cotrained {known} --skill @demos-stack {FINETUNED}");
    stages.push(train("stack-cotrained", both).shipped(
        "As `stack`, but half of what it was finetuned on is what `generalist` was trained on",
        "--task goal_stack",
    ));
    stages
}
