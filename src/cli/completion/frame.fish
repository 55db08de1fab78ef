# Completion of ftqc for fish, made by 'ftqc help --completion fish'.

# Whether option $argv[2] of command $argv[1] is followed by its value.
function __ftqc_takes
    switch "$argv[1]:$argv[2]"
        case @values@
            return 0
    end
    return 1
end

# What stands before the cursor: the command, the number of operands behind it, whether options have ended, and words
# that say where the group is.
function __ftqc_place
    set -l words (commandline -opc)
    set -e words[1]
    set -l command ''
    set -l operands 0
    set -l ended 0
    set -l from
    while set -q words[1]
        set -l word $words[1]
        set -e words[1]
        if test $ended = 0; and string match -q -r -- '^-.' $word
            switch $word
                case --
                    set ended 1
                case '--servers=*' '--key=*'
                    set -a from $word
                case '--*=*'
                case '*'
                    if __ftqc_takes "$command" $word
                        if contains -- $word -s --servers -k --key
                            set -a from $word $words[1]
                        end
                        set -e words[1]
                    end
            end
        else if test -z "$command"
            set command $word
            if contains -- $command @bare@
                set ended 1
            end
        else
            set operands (math $operands + 1)
            set ended 1
        end
    end
    printf '%s\n' "$command" $operands $ended $from
end

# Whether the cursor is at operand number $argv[2] of command $argv[1].
function __ftqc_at
    set -l place (__ftqc_place)
    test "$place[1]" = "$argv[1]"; and test (math $place[2] + 1) = "$argv[2]"
end

# Whether options may stand at the cursor, those of command $argv[1] if it is given.
function __ftqc_options
    set -l place (__ftqc_place)
    test $place[3] = 0; or return 1
    test (count $argv) = 0; or test "$place[1]" = "$argv[1]"
end

function __ftqc_labels
    set -l place (__ftqc_place)
    ftqc -t 1 $place[4..-1] queues 2>/dev/null | string replace -r '\t.*' ''
end

complete -c ftqc -f
@lines@
