#compdef ftqc
# Completion of ftqc for zsh, made by 'ftqc help --completion zsh'.

_ftqc_labels() {
    local -a labels
    labels=(${${(f)"$(ftqc -t 1 $ftqc_from queues 2>/dev/null)"}%%$'\t'*})
    compadd -a labels
}

_ftqc_commands() {
    local -a commands
    commands=(
@commands@
    )
    _describe -t commands command commands
}

_ftqc() {
    local curcontext=$curcontext state line option
    local -a ftqc_globals ftqc_from
    typeset -A opt_args
    ftqc_globals=(
@globals@
    )
    _arguments -C -S -A '-*' $ftqc_globals '1:command:_ftqc_commands' '*::operand:->operand' && return
    [[ $state == operand ]] || return
    for option in -s --servers -k --key; do
        [[ -n ${opt_args[$option]} ]] && ftqc_from+=($option ${opt_args[$option]//\\:/:})
    done
    case $words[1] in
@operands@
    esac
}

if [[ $funcstack[1] == _ftqc ]]; then
    _ftqc "$@"
else
    compdef _ftqc ftqc
fi
