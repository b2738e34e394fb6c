"""Small chat templates, each with what is odd about one of those in use, and records to write."""

from __future__ import annotations

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NOT_BY_PREFIXES = (  # as those that drop the reasoning of all turns but the last
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' and loop.last %}<think>"
    "</think>{% endif %}{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
RAISES = "{{ raise_exception('roles must alternate') }}"
WRITES_THE_DAY = "{{ strftime_now('%d %b %Y') }}" + CHATML


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns of user and assistant, one after the other."""
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


SYSTEM_APART = (  # as Llama 2's: the system prompt stands within the first turn of the user
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set first = '<<SYS>>' + messages[0].content + '<</SYS>> ' %}"
    "{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}[INST] "
    "{{ first if loop.first else '' }}{{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
TRIMMED_AND_MARKED = (  # as Llama 3's and Gemma's
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content | trim }}<|eot|>{% endgeneration %}"
    "{% else %}{{ m.content | trim }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n\n{% endif %}"
)
DEFAULT_SYSTEM = (  # as Qwen 2.5's
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}" + CHATML
)
DROPS_REASONING = (  # as Qwen 3's: only the last answer has an empty block of reasoning
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' and loop.last %}<think>\n"
    "</think>\n{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ENDS_WITH_EOS = (  # as Phi 3's
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
REASONS_AND_CALLS = (  # as those of models that reason and call tools
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{% if m.thinking %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>"
    "{% endfor %}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALL = {
    "chatml": CHATML,
    "marked": MARKED,
    "system apart": SYSTEM_APART,
    "trimmed and marked": TRIMMED_AND_MARKED,
    "default system": DEFAULT_SYSTEM,
    "drops reasoning": DROPS_REASONING,
    "reasons and calls": REASONS_AND_CALLS,
}
"""Templates whose tokens and labels are recorded."""
