# Completion of ftqc for bash, made by 'ftqc help --completion bash'.

# What may stand as the value of option $2 of command $1, or before any command; nothing if it takes no value.
_ftqc_value() {
    case $1:$2 in
@values@
    esac
}

# The options of command $1, or those before any command.
_ftqc_options() {
    case $1 in
@options@
    esac
    echo '@globals@'
}

# What may stand as operand number $2 of command $1.
_ftqc_operand() {
    case $1:$2 in
@operands@
    esac
}

_ftqc_commands='@commands@'

# Adds those of the words $2... that begin with $1, so quoted that the shell takes them as they are.
_ftqc_offer() {
    local typed=$1 word quoted
    shift
    for word; do
        printf -v quoted %q "$word"
        [[ $word == "$typed"* || $quoted == "$typed"* ]] && COMPREPLY+=("$quoted")
    done
}

# Reads the words before the cursor: sets command, operands, ended (no more options), from, and wanted where the last
# one is an option that lacks its value.
_ftqc_read() {
    local at=1 k word option value kind
    while ((at < $#)); do
        ((at++))
        word=${!at} kind=
        if [[ -n $ended || $word != -?* ]]; then
            if [[ -z $command ]]; then
                command=$word
                case $command in @bare@) ended=1 ;; *) ended= ;; esac
            else
                ((operands++))
                ended=1
            fi
            continue
        fi
        case $word in
        --) ended=1 ;;
        --*=*) option=${word%%=*} value=${word#*=} kind=$(_ftqc_value "$command" "$option") ;;
        --*)
            option=$word kind=$(_ftqc_value "$command" "$option")
            if [[ -n $kind ]]; then
                ((at++))
                value=${!at}
            fi
            ;;
        *)
            for ((k = 1; k < ${#word}; k++)); do
                option=-${word:k:1} kind=$(_ftqc_value "$command" "$option")
                [[ -n $kind ]] || continue
                value=${word:k+1}
                if [[ -z $value ]]; then
                    ((at++))
                    value=${!at}
                fi
                break
            done
            ;;
        esac
        [[ -n $kind ]] || continue
        if ((at > $#)); then
            wanted=$kind
        fi
        case $option in -s | --servers | -k | --key) from+=("$option" "$value") ;; esac
    done
}

_ftqc() {
    # What bash takes for words ends at = and : too: the line itself is read.
    local line=${COMP_LINE:0:COMP_POINT} typed= stem= mark kind word
    local command= operands=0 ended= wanted= words=() from=() found=()
    read -ra words <<<"$line"
    if [[ $line != *[[:space:]] ]]; then
        typed=${words[-1]}
        unset 'words[-1]'
    fi
    _ftqc_read "${words[@]}"
    COMPREPLY=()
    if [[ -n $wanted ]]; then
        kind=$wanted
    elif [[ -z $ended && $typed == --*=* ]]; then
        kind=$(_ftqc_value "$command" "${typed%%=*}")
        stem=${typed%%=*}= typed=${typed#*=}
    elif [[ -z $ended && $typed == -* ]]; then
        kind="=$(_ftqc_options "$command")"
    elif [[ -z $command ]]; then
        kind=command
    else
        kind=$(_ftqc_operand "$command" $((operands + 1)))
    fi
    case $kind in
    label)
        mapfile -t found < <(ftqc -t 1 "${from[@]}" queues 2>/dev/null | cut -f 1)
        _ftqc_offer "$typed" "${found[@]}"
        ;;
    command) _ftqc_offer "$typed" $_ftqc_commands ;;
    file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$typed")
        ;;
    =*) _ftqc_offer "$typed" ${kind#=} ;;
    esac
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
    # Of a word with one of these in it bash replaces only what is behind the last of them.
    for ((word = 0; word < ${#COMPREPLY[@]}; word++)); do
        COMPREPLY[word]=$stem${COMPREPLY[word]}
    done
    typed=$stem$typed
    for mark in = : @; do
        [[ $COMP_WORDBREAKS == *$mark* ]] || continue
        stem=${typed%"${typed##*"$mark"}"}
        COMPREPLY=("${COMPREPLY[@]#"$stem"}")
        typed=${typed#"$stem"}
    done
}

complete -F _ftqc ftqc
