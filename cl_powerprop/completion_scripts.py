"""The scripts that make a shell ask for completions. The last word of each question is the one to complete."""

from collections.abc import Sequence

from cl_powerprop.errors import ConfigurationError, check_choice

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "cl-powerprop"

_BASH = r"""
_cl_powerprop() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$' \t\n' breaks prefix="" words found
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word="${words[${#words[@]}-1]}"
    breaks="${COMP_WORDBREAKS//[^=:]/}"  # bash completes only what follows the last of these
    [[ -n $breaks && $word == *[$breaks]* ]] && prefix="${word%"${word##*[$breaks]}"}"
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$prefix"}")
    done < <("${words[0]}" completion query -- "${words[@]:1}" 2>/dev/null)
}
complete -o nospace -o default -F _cl_powerprop cl-powerprop
"""
_ZSH = r"""
_cl_powerprop() {
    local -a found
    found=("${(@f)$("${words[1]}" completion query -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -Q -S "" -a found
    else
        compset -P "*="
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _cl_powerprop cl-powerprop
"""
_FISH = r"""
function __cl_powerprop_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] completion query -- $words[2..-1] 2>/dev/null | string trim --right)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c cl-powerprop -f -a '(__cl_powerprop_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_REMOVALS = {
    "bash": f"complete -r {PROGRAM}\n",
    "zsh": f"compdef -d {PROGRAM}\n",
    "fish": f"complete -e -c {PROGRAM}\n",
}


def script(shell: str) -> str:
    """Return what a shell is to evaluate, as in `eval "$(cl-powerprop completion bash)"`.

    Raises:
        ConfigurationError: for a shell that is not among :data:`SHELLS`.
    """
    check_choice("completion", shell, SHELLS)
    return _SCRIPTS[shell].lstrip()


def hydra_script(words: Sequence[str]) -> str:
    """Return what `run --hydra-help` promises of `run --shell-completion install=SHELL` and `uninstall=SHELL`.

    Raises:
        ConfigurationError: for anything else.
    """
    for word in words:
        action, _, shell = word.partition("=")
        if action in ("install", "uninstall"):
            check_choice(action, shell, SHELLS)
            scripts = _SCRIPTS if action == "install" else _REMOVALS
            if shell != "bash":
                return scripts[shell].lstrip()
            # Hydra's help has users of zsh evaluate what is printed for bash.
            zsh = f'eval "$({PROGRAM} run --shell-completion {action}=zsh)"'
            return f'if [ -n "$ZSH_VERSION" ]; then {zsh}\nelse\n{scripts[shell].strip()}\nfi\n'
    raise ConfigurationError(f'tab completion is set up by: eval "$({PROGRAM} completion bash)", or zsh, fish')
