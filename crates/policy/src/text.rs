//! From an instruction to the language model's token ids.

mod files;

use std::path::Path;

use tokenizers::Tokenizer;

use crate::PolicyError;

/// Most tokens of a prompt. Published prompts take about 40; a forward's time grows with every token, so that a prompt as
/// long as a language model takes (32768 tokens for Qwen2.5) would stop a robot for minutes.
pub const MAX_PROMPT_TOKENS: usize = 512;

/// No token is longer on average, whatever the tokenizer: what is longer than so many bytes a token need not be cut into
/// tokens to know that there are too many.
const MAX_TOKEN_BYTES: usize = 64;

/// How an instruction is put to the language model. Checkpoints do not say which form they were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptTemplate {
    /// Qwen's chat form: the published models on Qwen2.5-0.5B (MergeVLA, VLA-Adapter; their `use_minivlm`).
    QwenChat,
    /// `In: … Out:`, as the larger OpenVLA models (on Llama-2-7B) have it.
    InOut,
}

impl PromptTemplate {
    /// The form that goes with a language model, by the `model_type` of `text_config` in `config.json`: the chat form
    /// for Qwen models (`qwen2`, …), the other for everything else.
    pub fn for_language_model(model_type: &str) -> Self {
        if model_type.starts_with("qwen") { Self::QwenChat } else { Self::InOut }
    }

    /// The whole prompt, with the instruction in lower case as in the training data.
    ///
    /// ```
    /// use skillweld_policy::text::PromptTemplate;
    ///
    /// let prompt = PromptTemplate::InOut.render("Open the drawer");
    /// assert_eq!(prompt, "In: What action should the robot take to open the drawer?\nOut:");
    /// ```
    pub fn render(self, instruction: &str) -> String {
        let question = format!("What action should the robot take to {}?", instruction.to_lowercase());
        match self {
            Self::QwenChat => format!(
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
                 <|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            ),
            Self::InOut => format!("In: {question}\nOut:"),
        }
    }
}

/// Turns instructions into prompt token ids. Placeholders for actions and the stop token are the model's business.
#[derive(Debug, Clone)]
pub struct PromptEncoder {
    tokenizer: Tokenizer,
    template: PromptTemplate,
}

impl PromptEncoder {
    /// Reads the tokenizer of a checkpoint directory: `tokenizer.json`, or for Qwen2 also `vocab.json` with
    /// `merges.txt` and the special tokens of `tokenizer_config.json` or `added_tokens.json`.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when there is no tokenizer, or it cannot be understood.
    pub fn open(dir: &Path, template: PromptTemplate) -> Result<Self, PolicyError> {
        Ok(Self { tokenizer: files::open(dir)?, template })
    }

    /// True when `dir` holds files of a tokenizer.
    pub(crate) fn is_at(dir: &Path) -> bool {
        files::are_in(dir)
    }

    /// Token ids of the prompt for an instruction, with what the tokenizer puts before or after every text (Llama's
    /// `<s>`; nothing for Qwen).
    ///
    /// # Errors
    /// [`PolicyError::Observation`] when the instruction is empty, or its prompt takes more than `max_tokens`.
    pub fn encode(&self, instruction: &str, max_tokens: usize) -> Result<Vec<u32>, PolicyError> {
        let refused = |problem| Err(PolicyError::Observation(problem));
        if instruction.trim().is_empty() {
            return refused("prompt: it is empty; say what the robot is to do".to_owned());
        }
        if instruction.len() > max_tokens.saturating_mul(MAX_TOKEN_BYTES) {
            return refused(format!(
                "prompt: it is {} bytes long, but {max_tokens} tokens are the most that is taken; shorten the instruction",
                instruction.len()
            ));
        }
        let encoding = match self.tokenizer.encode_fast(self.template.render(instruction), true) {
            Ok(encoding) => encoding,
            Err(error) => return refused(format!("prompt: the tokenizer refuses it: {error}")),
        };
        let ids = encoding.get_ids();
        if ids.len() > max_tokens {
            return refused(format!(
                "prompt: it takes {} tokens, but {max_tokens} are the most that is taken; shorten the instruction",
                ids.len()
            ));
        }
        if ids.is_empty() {
            return refused("prompt: the tokenizer knows none of it".to_owned());
        }
        Ok(ids.to_vec())
    }

    /// The form of its prompts.
    pub fn template(&self) -> PromptTemplate {
        self.template
    }

    /// Ids that the tokenizer can give are below this number, if it numbers its tokens without gaps.
    pub fn vocabulary_len(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_model_decides_about_the_form() {
        assert_eq!(PromptTemplate::for_language_model("qwen2"), PromptTemplate::QwenChat);
        assert_eq!(PromptTemplate::for_language_model("llama"), PromptTemplate::InOut);
    }

    #[test]
    fn prompts_are_the_published_ones() {
        assert_eq!(
            PromptTemplate::QwenChat.render("Pick up the RED Mug"),
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful \
             assistant.<|im_end|>\n<|im_start|>user\nWhat action should the robot take to pick up the red \
             mug?<|im_end|>\n<|im_start|>assistant\n"
        );
    }
}
