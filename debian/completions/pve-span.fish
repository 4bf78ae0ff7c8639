# Completion for fish. pve-span itself knows what can stand where.

function __pve_span_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command pve-span complete -- $words[2..-1] "$current" 2>/dev/null)
    # Behind = is the value of an option.
    set -l before (string match -r -- '^--[^=]*=' "$current")
    set -l value (string replace -r -- '^--[^=]*=' '' "$current")
    switch "$lines[1]"
        case words
            # A word, a tab, and what it means, as fish has it.
            string join \n -- $lines[2..-1]
        case files
            for path in (__fish_complete_path "$value")
                echo "$before$path"
            end
        case folders
            for path in (__fish_complete_directories "$value")
                echo "$before$path"
            end
    end
end

complete -c pve-span -f -a '(__pve_span_complete)'
